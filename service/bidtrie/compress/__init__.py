"""Compression: weights as small codes with scales, written as an artefact that every engine loads."""
