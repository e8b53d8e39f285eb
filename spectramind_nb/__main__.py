from spectramind_nb.apps.cli import main

main()
