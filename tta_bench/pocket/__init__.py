# SPDX-License-Identifier: Apache-2.0
"""PocketScenes, its models and their training: a first-party plug-in that needs no download."""
