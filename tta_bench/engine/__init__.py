# SPDX-License-Identifier: Apache-2.0
"""Plan cells, run them under honest clocks, and hand their rows to whatever keeps them."""
