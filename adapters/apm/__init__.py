# SPDX-License-Identifier: Apache-2.0
"""APM, single-image distillation of a CLIP teacher: the method, and the engines of its fit."""
