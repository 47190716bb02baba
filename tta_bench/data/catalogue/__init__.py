# SPDX-License-Identifier: Apache-2.0
"""The datasets of the literature as declarations of facts; importing them imports neither torch nor data."""
