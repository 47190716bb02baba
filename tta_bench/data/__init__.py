# SPDX-License-Identifier: Apache-2.0
"""Datasets, corruptions and streams; labels stay on this side of the harness."""
