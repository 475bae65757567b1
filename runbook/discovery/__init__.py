"""``runbook init``: a plan from the hosts themselves, whatever still answers there.

=============  =====================================================================================
``asks``       what a host is asked, and what it printed as typed data
``seen``       one host's answers, and the three rounds in which they are got
``draft``      from all answers to what the plan will say: members, hosts, workers, paths
``settings``   owner, bump, tools, verify
``snapshots``  the snapshot that the command line names
``judge``      is there a plan in it at all? Refusals, each with what was seen
``writer``     the plan's text, with a comment for what could not be learned
``cli``        the command
=============  =====================================================================================
"""
