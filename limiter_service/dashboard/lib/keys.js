// API keys, in this tab's session storage and nowhere else: gone when the tab is closed.

const READ = "sluicegate.key";
const ADMIN = "sluicegate.admin-key";
let remembered = {}; // where storage is forbidden

function get(name) {
  try {
    return sessionStorage.getItem(name);
  } catch {
    return remembered[name] ?? null;
  }
}

function put(name, value) {
  try {
    if (value) sessionStorage.setItem(name, value);
    else sessionStorage.removeItem(name);
  } catch {
    remembered = { ...remembered, [name]: value || null };
  }
}

export const keys = {
  /** The key to look with. */
  read: () => get(READ) ?? get(ADMIN),
  /** The key to act with. */
  admin: () => get(ADMIN) ?? get(READ),
  known: () => get(READ) !== null || get(ADMIN) !== null,
  keepRead: (value) => put(READ, value.trim()),
  keepAdmin: (value) => put(ADMIN, value.trim()),
  forget() {
    put(READ, "");
    put(ADMIN, "");
  },
};
