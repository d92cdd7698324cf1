"""The shipped configs (as `dl_lab.conf`): Hydra finds a package only where this file is."""
