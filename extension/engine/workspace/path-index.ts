// Paths by the folders they lie in, so that all that lie below one are found without a look at the others. Pure. Its owner knows
// which paths there are; here are the ways to them.

export class PathIndex {
  /** By folder: the whole paths of what lies directly in it, folders on the way to something among them. */
  private readonly entries = new Map<string, Set<string>>();

  constructor(private readonly isKnown: (path: string) => boolean) {}

  add(path: string): void {
    for (let at = path; at !== ''; ) {
      const folder = folderOf(at);
      const siblings = this.entries.get(folder);
      if (siblings) {
        siblings.add(at);
        return;
      }
      this.entries.set(folder, new Set([at]));
      at = folder;
    }
  }

  /** A path that its owner does not know any more, and the way to it as far as it leads nowhere else. */
  delete(path: string): void {
    for (let at = path; at !== '' && !this.isKnown(at) && !this.entries.has(at); ) {
      const folder = folderOf(at);
      const siblings = this.entries.get(folder);
      siblings?.delete(at);
      if (siblings?.size !== 0) return;
      this.entries.delete(folder);
      at = folder;
    }
  }

  /** What lies directly in a folder. */
  childrenOf(folder: string): Iterable<string> {
    return this.entries.get(folder) ?? [];
  }

  clear(): void {
    this.entries.clear();
  }

  /** The path itself and all below it, among them ways that are no known paths. */
  *within(path: string): Iterable<string> {
    const found = [path];
    // It grows while it is gone through.
    for (const at of found) {
      yield at;
      for (const entry of this.entries.get(at) ?? []) found.push(entry);
    }
  }
}

function folderOf(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf('/'), 0));
}
