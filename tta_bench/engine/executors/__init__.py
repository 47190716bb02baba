# SPDX-License-Identifier: Apache-2.0
"""Where cells run: in processes of this machine, on a Ray cluster, or as jobs of SLURM."""
