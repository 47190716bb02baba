# SPDX-License-Identifier: Apache-2.0
"""Recompute a small committed sample of results on another machine, and say how far it agrees."""
