# SPDX-License-Identifier: Apache-2.0
"""Numbers from arrays of predictions: accuracy, paired tests, calibration, corruption error."""
