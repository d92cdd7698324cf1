"""The small projects that `dl-lab init` writes: their texts, and their data, which is generated and not downloaded."""
