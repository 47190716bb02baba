# SPDX-License-Identifier: Apache-2.0
"""The typed identity of a number: request, cell, protocol card and manifest. Imports neither torch nor pydantic."""

from tta_bench.spec.cell import Cell as Cell
from tta_bench.spec.cell import PluginFile as PluginFile
from tta_bench.spec.cell import Shift as Shift
from tta_bench.spec.digest import canonical as canonical
from tta_bench.spec.digest import counter_seed as counter_seed
from tta_bench.spec.digest import digest as digest
from tta_bench.spec.manifest import SCHEMA_VERSION as SCHEMA_VERSION
from tta_bench.spec.manifest import Manifest as Manifest
from tta_bench.spec.manifest import Notes as Notes
from tta_bench.spec.manifest import Outcome as Outcome
from tta_bench.spec.model_options import ModelOptions as ModelOptions
from tta_bench.spec.protocol import FACTS as FACTS
from tta_bench.spec.protocol import Protocol as Protocol
from tta_bench.spec.ranges import limit_to_subset as limit_to_subset
from tta_bench.spec.ranges import parse_severities as parse_severities
from tta_bench.spec.ranges import subset_size as subset_size
from tta_bench.spec.request import BAD_IMAGE as BAD_IMAGE
from tta_bench.spec.request import RESETS as RESETS
from tta_bench.spec.request import Controls as Controls
from tta_bench.spec.request import Request as Request
from tta_bench.spec.request import SuiteUse as SuiteUse
from tta_bench.spec.request import make_request as make_request
from tta_bench.spec.request import merged as merged
from tta_bench.spec.settings import parse_setting as parse_setting
from tta_bench.spec.settings import settings_for as settings_for
