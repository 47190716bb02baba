# SPDX-License-Identifier: Apache-2.0
"""Tables, leaderboards and comparisons, made from run folders alone."""
