# SPDX-License-Identifier: Apache-2.0
"""Per-image records, the manifest of a cell, and the store that holds both."""
