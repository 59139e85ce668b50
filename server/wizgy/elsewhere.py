"""What other servers have and wizgy has not, with a sentence each: what to do in place of it, or why there is nothing.

What other servers only call otherwise is in `wizgy.config`, as `Setting.synonyms`.
"""

from __future__ import annotations

from typing import Final

_SENTENCES: Final = {
    "Each worker loads the application itself. To load it once, call wizgy.serve(app) in a program of your own.": (
        "preload preload_app lazy lazy_apps"
    ),
    "wizgy writes no pid file: leave that to what starts it, as systemd.": "pid pidfile pid_file safe_pidfile",
    "wizgy stays in the foreground: run it as a service, of systemd say (docs/operations.md has a unit).": (
        "daemon daemonize daemonize2 background"
    ),
    "wizgy does not change its user: start it as the right one (User= and Group= in systemd). The group "
    "of a Unix socket "
    "is part of its address, as --bind 'unix:PATH?mode=660&group=NAME'.": (
        "user uid group gid initgroups chown_socket chroot"
    ),
    "The permissions of a Unix socket are part of its address, as --bind 'unix:PATH?mode=660'. For "
    "files, set the umask "
    "of what starts wizgy (UMask= in systemd).": (
        "umask chmod_socket unix_socket_perms unix_socket_permissions uds_permissions socket_umask"
    ),
    "The error log goes to standard error: redirect it, as with 2>FILE.": (
        "error_log error_logfile errorlog error_log_name log_file logfile log log_to_terminal logto logto2 "
        "capture_output "
        "startup_log log_directory enable_stdio_inheritance"
    ),
    "The logs of the server are set by --log-format, --log-level and --access-log-format; logging of the "
    "application is "
    "its own.": (
        "log_config logconfig log_config_dict logconfig_dict log_config_json logconfig_json logger "
        "logger_class use_colors "
        "syslog log_syslog log_syslog_to log_syslog_prefix log_syslog_facility "
        "disable_redirect_access_to_syslog log_date"
    ),
    "wizgy sends no metrics: the access log has the duration of each request, with --access-log-format json.": (
        "statsd statsd_host statsd_prefix dogstatsd_tags stats stats_server metrics metrics_enabled metrics_address "
        "metrics_port prometheus carbon"
    ),
    "A factory is named with its brackets, without a flag: wizgy module:create_app().": "factory call",
    "The application is named without a flag: wizgy module:app.": (
        "app application module wsgi wsgi_app wsgi_file file callable entry_point"
    ),
    "wizgy reads no PasteDeploy file: load the application in a module, as "
    "app = paste.deploy.loadapp('config:PATH').": "paste paster ini_paste paste_global",
    "Temporary files of requests are in TMPDIR; nothing else needs a folder.": (
        "worker_tmp_dir worker_tmpdir tmp_upload_dir body_buffer_folder temp_dir"
    ),
    "There is one kind of worker, with threads: see --workers and --threads.": (
        "worker_class worker_type gevent async asyncio greenlets loop event_loop runtime_mode "
        "runtime_threads task_impl "
        "asyncore_use_poll asyncore_loop_timeout"
    ),
    "wizgy serves WSGI, which has neither ASGI nor WebSocket.": (
        "asgi interface lifespan ws websocket ws_max_size ws_max_queue ws_ping_interval ws_ping_timeout "
        "ws_per_message_deflate websocket_ping_interval"
    ),
    "wizgy works like that in any case.": (
        "master vacuum die_on_term need_app no_orphans enable_threads single_interpreter thunder_lock reuse_port "
        "respawn_failed_workers"
    ),
    "Plain files are always sent by the kernel.": "sendfile",
    "Tracebacks are in the error log, and never in a response.": "expose_tracebacks",
    "The scheme is https with --certfile, or where a proxy of --trust-proxy says so.": "url_scheme",
    "A worker is replaced after --max-requests; neither its age nor its memory is limited.": (
        "reload_on_rss evil_reload_on_rss reload_on_as workers_lifetime workers_max_rss max_worker_lifetime "
        "min_worker_lifetime"
    ),
    "wizgy runs in the Python that it is installed in.": "virtualenv venv home pyhome",
    "HTTP is read strictly, and no switch changes that.": (
        "permit_obsolete_folding permit_unconventional_http_method permit_unconventional_http_version "
        "casefold_http_method strip_header_spaces header_map tolerate_dangerous_framing"
    ),
    "Variables of the application are set in the environment that wizgy is started in.": "env env_file raw_env",
    "The file of settings is TOML, and named by --config; wizgy --check loads it and the application.": (
        "check_config test_config dry_run conf config_file settings ini ini_file yaml json xml"
    ),
    "wizgy speaks HTTP/1.1: HTTP/2 and HTTP/3 are for a proxy in front of it.": (
        "http2 http_2 h2 http3 quic_bind alpn_protocols http1_only h2_max_concurrent_streams"
    ),
    "wizgy speaks TLS 1.2 and 1.3 with the ciphers of Python's ssl; certificates of clients are for --client-ca.": (
        "ssl_version ssl_ciphers ssl_options ssl_protocol_min ssl_cert_reqs ciphers cert_reqs verify_mode "
        "do_handshake_on_connect suppress_ragged_eofs"
    ),
    "The private key has to be without a password: nobody is there to type it.": (
        "ssl_keyfile_password keyfile_password ssl_password"
    ),
    "Static files are for a proxy in front of wizgy, or for the application.": (
        "static static_map static_path static_folder static_path_route static_path_mount check_static document_root"
    ),
    "--reload watches every module that is loaded, wherever it is.": (
        "reload_dir reload_dirs reload_include reload_exclude reload_engine reload_delay reload_paths "
        "reload_ignore_dirs "
        "reload_extra_file reload_extra_files extra_files py_autoreload"
    ),
    "kill -HUP, sent to the supervisor, loads settings and application again.": "touch_reload touch_chain_reload",
    "wizgy keeps its name, by which ps shows its command line.": "name proc_name procname procname_prefix process_name",
    "Fields of responses are for the application, or for a proxy in front of wizgy.": (
        "header headers add_header response_header date_header"
    ),
    "wizgy runs the application and nothing else: leave the rest to services of their own.": (
        "emperor cron spooler mule attach_daemon cheaper legion"
    ),
}

SENTENCES: Final = {name: sentence for sentence, names in _SENTENCES.items() for name in names.split()}
"""What to say of a setting that is another server's, by its name with underscores."""

LETTERS: Final = {
    "b": "Did you mean --bind?",
    "w": "Did you mean --workers?",
    "c": "Did you mean --config?",
    "t": "Did you mean --request-timeout or --threads?",
    "v": "Did you mean --version?",
    "p": "A port is part of the address, as in --bind 127.0.0.1:8000; wizgy writes no pid file.",
    "H": "A host is part of the address, as in --bind 127.0.0.1:8000.",
    "k": SENTENCES["worker_class"],
    "D": SENTENCES["daemon"],
    "d": SENTENCES["daemon"],
    "u": SENTENCES["user"],
    "g": SENTENCES["group"],
    "m": SENTENCES["umask"],
    "e": SENTENCES["env"],
    "n": SENTENCES["name"],
}
"""What to say of a flag of one letter."""
