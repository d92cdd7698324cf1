"""`dl-lab tune`: which settings are fastest on this machine for one job."""
