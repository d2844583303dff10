//! The command line: one file per verb; human and JSON rendering live here and only here.
