"""Sampling, scoring, ranking and their report: tables in, tables out, on Ray."""
