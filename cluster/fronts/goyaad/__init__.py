"""goyaad: delayed jobs that can be cancelled, over Go's net/rpc.

RULE: foreign words in, our commands out. `rpc.py` is the conversation, `names.py` says how ids of
jobs are written, `front.py` serves it.

Source: urjitbhatia/goyaad at edf8e81 (2020-01-29), and net/rpc of Go 1.26. Its jobs are jobs of the
tube "default", shared with clients of beanstalkd and of our own API.
"""
