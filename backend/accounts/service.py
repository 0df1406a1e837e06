"""The door of the accounts domain. A function with `db` opens transactions of its own around slow work, such as hashing."""

from backend.accounts.cleaning import clean, count_work
from backend.accounts.own import (
    change_password,
    create_api_key,
    end_other_sessions,
    end_session,
    list_api_keys,
    list_sessions,
    read_me,
    revoke_api_key,
)
from backend.accounts.people import (
    check_password,
    create_first_admin,
    create_user,
    end_sessions,
    find_user,
    list_users,
    read_user,
    reset_password,
    update_user,
)
from backend.accounts.signing_in import Client, SignedIn, authenticator, login, logout, refresh

__all__ = [
    "Client",
    "SignedIn",
    "authenticator",
    "change_password",
    "check_password",
    "clean",
    "count_work",
    "create_api_key",
    "create_first_admin",
    "create_user",
    "end_other_sessions",
    "end_session",
    "end_sessions",
    "find_user",
    "list_api_keys",
    "list_sessions",
    "list_users",
    "login",
    "logout",
    "read_me",
    "read_user",
    "refresh",
    "reset_password",
    "revoke_api_key",
    "update_user",
]
