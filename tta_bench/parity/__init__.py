# SPDX-License-Identifier: Apache-2.0
"""Replay of golden vectors through the public classes."""
