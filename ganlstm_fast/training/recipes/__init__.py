"""How each model is trained, judged and used; see :class:`~.base.Recipe`."""
