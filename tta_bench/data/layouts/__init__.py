# SPDX-License-Identifier: Apache-2.0
"""Layouts of images and labels on disk: one module per kind, none of which imports torch when imported."""
