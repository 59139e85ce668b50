"""Coverage-guided fuzzing of the HTTP core: docs/fuzzing.md says how to run it."""
