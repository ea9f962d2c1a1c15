import sys

from agent_client.packaging.build import main

sys.exit(main())
