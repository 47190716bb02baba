# SPDX-License-Identifier: Apache-2.0
"""A method and a model family for tta-bench."""
