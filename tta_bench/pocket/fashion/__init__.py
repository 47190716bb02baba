# SPDX-License-Identifier: Apache-2.0
"""Three thousand real images of Fashion-MNIST inside the package, and two small networks trained on it."""
