# SPDX-License-Identifier: Apache-2.0
"""Get datasets: download, unpack, prepare and check their files."""
