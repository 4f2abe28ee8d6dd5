"""What the modules of this repository share."""

from __future__ import annotations


class ModuleDocFragment:
    LOGIN = r"""
options:
  login:
    description:
      - Where the service's database is and who connects to it.
      - The connection must reach the primary itself. Through a connection pooler that keeps the settings of a session
        to itself, as PgBouncer does in each of its modes, the module refuses to work.
    type: dict
    required: true
    suboptions:
      host:
        description: Host name or address of the server.
        type: str
        required: true
      port:
        description: TCP port of the server.
        type: int
        default: 5432
      dbname:
        description: Name of the database.
        type: str
        required: true
      user:
        description: Role to connect as. It must own the planned tables, or be a member of the role that does.
        type: str
        required: true
      password:
        description: Password of the role.
        type: str
        required: true
      sslmode:
        description:
          - How much the connection insists on TLS, as libpq understands it.
          - Only V(verify-full) proves that the server is the one that was meant.
        type: str
        default: prefer
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
      sslrootcert:
        description:
          - The file, on the host of this module, of the authority that signs the server's certificate.
          - Empty is C(~/.postgresql/root.crt); V(system) trusts what the machine trusts, with libpq 16 or newer.
        type: str
        default: ""
      sslcert:
        description: The file of a certificate to show to the server.
        type: str
        default: ""
      sslkey:
        description: The file of its key, which nobody else may read.
        type: str
        default: ""
  lock_timeout_ms:
    description:
      - Longest wait for one lock, in milliseconds. V(0) waits for ever.
      - While a statement of this module waits for a lock, the service's statements queue behind it.
    type: int
    default: 3000
  statement_timeout_ms:
    description: Longest run of one statement, in milliseconds. V(0) means no limit.
    type: int
    default: 60000
requirements:
  - psycopg2 >= 2.9
"""

    PLAN = r"""
options:
  plan:
    description:
      - The plan, as read from its file in C(plans/).
      - It is validated first; a fault is reported with the name of its key, and nothing is done.
    type: dict
    required: true
"""

    RUN = r"""
options:
  run_id:
    description:
      - The run that does this, as M(deploy_run) opened it. Each transaction that writes begins by making sure that the
        run still holds its plan, and nobody can take it over before that transaction ends; what cannot run in one
        (Prisma, C(CONCURRENTLY)) is checked before and after. The lease is renewed meanwhile.
      - A run that was taken over, or closed, writes nothing more. Without it nobody is asked.
    type: str
"""

    PHASE = r"""
options:
  phase:
    description:
      - The phase that ends with this call. It is recorded in the journal of O(run_id) with what the call found and did,
        C(ok) or C(unchanged). Without it nothing is recorded.
    type: str
"""

    HISTORY = r"""
options:
  history:
    description:
      - The commands by which a migration tool keeps its own history of the plan's migration, run without a shell on the
        host of this module. In each argument C({migration}) is the plan's migration, and
        C({schema}) its schema.
      - Their environment has the database in libpq's variables (C(PGHOST), C(PGPASSWORD) and the others).
      - What they say they have done is believed once O(history.status) says it too.
    type: dict
    suboptions:
      status:
        description: Ends with 0 where the migration is applied, with 3 where it is not and all before it are, with 4
          where later ones are applied too. Any other code is an error.
        type: list
        elements: str
        required: true
      applied:
        description: Has the tool record the migration as applied, without running it.
        type: list
        elements: str
        required: true
      not_applied:
        description: Has the tool record the migration as not applied, without running anything.
        type: list
        elements: str
        required: true
      path:
        description: The directory in which they run.
        type: path
        required: true
      environment:
        description: More variables of their environment. In each value C({url}), C({address}) (the same without
          C(postgresql://)), C({host}), C({port}), C({dbname}), C({user}), C({password}), C({migration}) and C({schema})
          stand for what they name.
        type: dict
        default: {}
      timeout_s:
        description: Seconds that one of them may take. Then it is ended with its session, and that is an error.
        type: int
        default: 60
"""

    COMMANDS = r"""
options:
  commands:
    description:
      - The commands that change the version of an application, run without a shell on the host of this module. In each
        argument, and in each value of the environment, C({version}) is the version in question.
      - What they say they have done is believed once O(commands.status) says it too.
    type: dict
    required: true
    suboptions:
      status:
        description: Ends with 0 where every instance serves the version, with 3 where another one serves, whose name is
          the last line that it prints. Any other code is an error. It changes nothing.
        type: list
        elements: str
        required: true
      apply:
        description: Puts the version into service, and ends with 0 once every instance serves it.
        type: list
        elements: str
        required: true
      back:
        description: The same for the version that served before.
        type: list
        elements: str
        required: true
      path:
        description: The directory in which they run.
        type: path
        required: true
      environment:
        description: More variables of their environment. A secret of your own belongs in a file that they read.
        type: dict
        default: {}
      timeout_s:
        description: Seconds that one of them may take. Then it is ended with what it has started, and that is an error.
        type: int
        default: 300
"""

    PURGE = r"""
options:
  keep_days:
    description: For how many days what a run has archived, or a check has left, is kept. V(0) keeps it for ever.
    type: int
    required: true
  confirmed:
    description: Whether anything is removed. Without it everything is only listed.
    type: bool
    default: false
"""

    PM2 = r"""
options:
  pm2:
    description: The pm2 executable.
    type: str
    default: pm2
  pm2_home:
    description: PM2_HOME of the daemon; the environment's, or C(~/.pm2).
    type: path
  environment_path:
    description: Directories to search before PATH, separated by colons, so that node is found.
    type: str
"""

    RELEASES = r"""
options:
  releases:
    description:
      - The releases of which only the newest are kept, once what serves was proven. What serves, what a process works
        in and what is needed for the way back stays in any case. Without it none is removed.
    type: dict
    suboptions:
      path:
        description: The directory of the releases.
        type: path
        required: true
      keep:
        description: How many of them stay at least, 1 or more.
        type: int
        required: true
      needed:
        description: Releases that stay in any case.
        type: list
        elements: path
        default: []
"""

    SYSTEMD = r"""
options:
  units:
    description: The units that keep the application running, each a service with one process that serves.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the unit, such as C(shop@3001.service).
        type: str
        required: true
      url:
        description: Where the process of this unit answers, and no other; an address of the host itself.
        type: str
        required: true
  systemctl:
    description:
      - The command that asks and tells systemd, with what belongs to it, such as C([systemctl, --user]) or
        C([sudo, --non-interactive, /usr/bin/systemctl]).
    type: list
    elements: str
    default: [systemctl]
  journalctl:
    description: The command that reads the journal, in the same way. It has the words of a unit that has failed.
    type: list
    elements: str
    default: [journalctl]
"""

    READS_ONLY = r"""
attributes:
  check_mode:
    support: full
    description: It only reads, so it does the same in check mode.
  diff_mode:
    support: N/A
    description: It changes nothing.
"""

    IN_PROCESS = r"""
attributes:
  action:
    description: Runs in the process of ansible-playbook, with the Python of that.
    support: partial
    details:
      - Where it is delegated to C(localhost) with the local connection. With C(become), C(async) or C(environment), and
        on any other host, it is a module as ever.
"""

    RUN_ON_HOST = r"""
options:
  run:
    description:
      - The run that writes, as M(deploy_run) returned it. Right before each write its number is compared with that of
        the last run that wrote on this host. A lower one is refused by name, so that a controller which was frozen
        while another one deployed changes nothing more.
      - In check mode the two are compared and nothing is written down. Without it nothing is compared.
    type: dict
    suboptions:
      id:
        description: The run.
        type: str
        required: true
      number:
        description: Its number; each run has a higher one than those before it.
        type: int
        required: true
      path:
        description: The directory of the releases, where the number is kept (C(.run.json)).
        type: path
        required: true
"""
