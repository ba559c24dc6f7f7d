"""The python tool and the jails that its code runs in."""
