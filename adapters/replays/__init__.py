# SPDX-License-Identifier: Apache-2.0
"""Replay plans: how the methods of this package meet the golden vectors of their references."""
