"""``runbook diagnose``: what somebody who is asked for help will ask for, in one redacted archive.

==============  ====================================================================================
``questions``   what is asked of each host: pure data; the shell texts are in ``scripts``
``gather``      asks all hosts at once, each question with its own time limit, all within one
``subject``     the plan or run that is meant, and what this machine holds of it
``archive``     writes the ``.tar.zst``, private and whole or not at all
``contents``    what is in it and what is not: MANIFEST.json, README.txt, and the words on the terminal
``cli``         the command
==============  ====================================================================================
"""
