# SPDX-License-Identifier: Apache-2.0
"""Source models and their loaders."""
