# SPDX-License-Identifier: Apache-2.0
"""Islands of agreement: what the layers of a network agree on, as pictures and as numbers."""
