# SPDX-License-Identifier: Apache-2.0
"""How images and labels lie on disk: one module per kind of layout, none of which imports torch when imported."""
