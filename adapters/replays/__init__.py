# SPDX-License-Identifier: Apache-2.0
"""Replay plans: how each built-in method reproduces the golden vectors of its reference."""
