# SPDX-License-Identifier: Apache-2.0
"""A benchmark suite for test-time adaptation of image classifiers and CLIP-like models."""

__version__ = "0.1.0"
