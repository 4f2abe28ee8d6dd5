"""On PYTHONPATH of `make lint` alone: let linters that import modules find this project's module_utils.

Ansible ships module_utils/ as ansible.module_utils at run time; ansible-lint's rule `args` imports modules without that, and
skips in silence the files whose modules it cannot import.
"""

from pathlib import Path

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "module_utils"))
