# SPDX-License-Identifier: Apache-2.0
"""Decode, preprocess, prefetch and augment images."""
