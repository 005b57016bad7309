internal import HostSystem

/// What outlives releases (uploads, caches): each path is a folder below `shared/`, and a symlink in every release. What the
/// first release brought along in its place becomes the first content; what later ones bring is dropped in favour of what is
/// there.
struct SharedPaths {
    let layout: HostLayout
    let app: String
    let owner: (owner: UInt32, group: UInt32)?
    let stop: StopFlag

    func link(_ paths: [String], in release: String) throws {
        for path in paths { try link(path, in: release) }
    }

    private func link(_ path: String, in release: String) throws {
        let place = release + "/" + path
        let kept = layout.shared(app) + "/" + path
        let depth = path.split(separator: "/").count
        let target = String(repeating: "../", count: depth + 1) + "shared/" + path
        try Files.makeDirectoriesBeneath(release, Files.parent(of: path) ?? "")
        if let parent = Files.parent(of: kept) { try Files.makeDirectories(parent) }
        let status = try Files.status(place)
        if status?.kind == .symlink, Files.linkTarget(place) == target, Files.exists(kept) { return }
        if !Files.exists(kept) {
            if status?.kind != .directory {
                try Files.removeTree(place)
                try Files.makeDirectories(place)
            }
            // Owned while it is still the release's, which nobody else can reach: then one rename, so that a run killed here has
            // either moved all of it or nothing.
            if Host.isSuperuser, let owner {
                try Files.changeOwnerOfTree(place, owner: owner.owner, group: owner.group)
            }
            try move(place, to: kept)
        }
        try Files.removeTree(place)
        try Files.symlink(target: target, at: place)
    }

    /// A folder for shared files on a file system of its own (a network share) gets a copy, made aside.
    private func move(_ place: String, to kept: String) throws {
        do {
            try Files.rename(place, to: kept)
        } catch let error where error.isOtherFileSystem {
            let aside = kept + ".amorce-new"
            try Files.removeTree(aside)
            _ = try TreeClone.make(from: place, to: aside, stop: stop)
            try Files.synchronizeFileSystem(aside)
            try Files.rename(aside, to: kept)
        }
    }
}
