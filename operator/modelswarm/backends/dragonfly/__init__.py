"""Engine Dragonfly: models and images onto the seed peers, through the manager's Open API.

Who imports whom: ``engine`` → ``upkeep``, ``glance``, ``compose`` → ``ledger``, ``images``, ``client``, ``seeds`` →
``coverage``, ``plan``, ``marker`` → ``answers``, ``taskid``, ``items``, ``reasons``. Only ``client``, ``images`` and
``wire`` talk to anybody; all else is data in, data out.

What was done is written in two places, and nowhere in memory: in the task's ``status.dragonfly`` and in the manager's
own list of jobs, each of which carries a marker that says whose it is. Whatever is missing in the first is found again
in the second.
"""
