# SPDX-License-Identifier: Apache-2.0
"""Train and evaluate the pocket models."""
