# SPDX-License-Identifier: Apache-2.0
"""Built-in methods, one module each, found through the public entry-point group ``tta_bench.methods``."""
