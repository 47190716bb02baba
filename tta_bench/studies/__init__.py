# SPDX-License-Identifier: Apache-2.0
"""Studies of what a method does over its iterations."""
