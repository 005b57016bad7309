internal import HostSystem

/// Checks the rendered configuration as a whole before any of it is live: the real programs, run where the staged files stand
/// in their final places. A private mount namespace gives them that view, with an overlay on every top-level folder that the
/// configuration touches; the host itself sees nothing of it.
struct CheckConfiguration {
    struct Complaint: Error, CustomStringConvertible {
        let command: [String]
        let explanation: String
        var description: String { "\(command.joined(separator: " ")): \(explanation)" }
    }

    let layout: HostLayout
    let services: [Service]
    let stop: StopFlag
    let log: Log

    /// - Parameters:
    ///   - files: what will be live, with bytes.
    ///   - removed: paths that will be gone.
    ///   - scripts: rendered PHP files inside the release.
    ///   - rehearsal: what the site must answer from the staged configuration; nil for no rehearsal.
    /// - Returns: what was checked, in words.
    func check(
        files: [RenderedFile], removed: [String], scripts: [String], rehearsal: Rehearsal.Request?
    ) throws -> String {
        let staging = layout.runtime + "/staged"
        try Files.removeTree(staging)
        defer { try? Files.removeTree(staging) }
        try Files.makeDirectories(staging, mode: 0o700)
        let tops = try stage(files, in: staging)

        var commands = services.compactMap(\.knownCheck)
        let rendered = files.filter { $0.entry.kind == .file && $0.entry.path.hasSuffix(".php") }
            .map { layout.path($0.entry.path) }
        commands += (rendered + scripts).map { ["php", "-l", $0] }
        for command in commands {
            let result = try run(command, View(tops: tops, removed: removed, staging: staging))
            guard result.isSuccess else {
                throw Complaint(
                    command: command, explanation: result.explanation.replacing(staging + "/upper", with: ""))
            }
        }
        let checked = "\(commands.count) checks passed"
        guard let rehearsal else { return checked }
        return checked + ", " + (try rehearse(rehearsal, View(tops: tops, removed: removed, staging: staging)))
    }

    /// Serves the staged configuration where nobody but amorce can ask, and asks. Only an answer that is certainly wrong
    /// refuses it; where the rehearsal itself is not possible, the proof after the switch decides alone.
    private func rehearse(_ request: Rehearsal.Request, _ view: View) throws -> String {
        var view = view
        view.privateFolders = request.programs.flatMap(\.privateFolders).map(layout.path).filter { Files.exists($0) }
        let file = view.staging + "/rehearsal.json"
        try AtomicFile.write(try RunRecorder.encode(request), to: file, mode: 0o600)
        guard let own = Files.linkTarget("/proc/self/exe") else { return "no rehearsal: /proc is not mounted" }
        let result = try run([own, "rehearse", file], view, patience: request.probe.timeout + .seconds(20))
        guard result.isSuccess, let verdict = try? RunRecorder.decode(Rehearsal.Verdict.self, from: result.output)
        else {
            log.notice("no rehearsal was possible: \(result.explanation)")
            return "no rehearsal"
        }
        switch verdict {
        case .passed: return "the site answers in a rehearsal"
        case .refused(let explanation, let advice): throw Rehearsal.Refused(explanation: explanation, advice: advice)
        case .impossible(let reason):
            log.notice("no rehearsal was possible: \(reason)")
            return "no rehearsal"
        }
    }

    /// How the host looks to a check: with the staged files in place, and some folders of its own.
    private struct View {
        let tops: [String]
        let removed: [String]
        let staging: String
        var privateFolders: [String] = []
    }

    /// Lays the files out below `upper/`; returns the top-level folders touched.
    private func stage(_ files: [RenderedFile], in staging: String) throws -> [String] {
        var tops: Set<String> = []
        for file in files {
            let parts = file.entry.path.split(separator: "/").map(String.init)
            guard parts.count > 1 else { continue }
            tops.insert(parts[0])
            // An overlay takes the attributes of a directory from its upper layer: they must be those of the host's own.
            var folder = staging + "/upper"
            var real = layout.root
            for part in parts.dropLast() {
                folder += "/" + part
                real += "/" + part
                if Files.exists(folder) { continue }
                let status = try Files.status(real, followingLinks: true)
                try Files.makeDirectories(folder, mode: status?.mode ?? 0o755)
                if Host.isSuperuser, let status {
                    try Files.changeOwner(folder, owner: status.owner, group: status.group)
                }
            }
            let place = staging + "/upper" + file.entry.path
            try file.entry.prepare(file.bytes, at: place)
        }
        for top in tops {
            try Files.makeDirectories(staging + "/scratch/" + top, mode: 0o700)
            // A mount point for the view; the switch would make it a moment later.
            try Files.makeDirectories(layout.path("/" + top))
        }
        return tops.sorted()
    }

    /// Mounts one overlay a top-level folder, removes what will be gone, then becomes the check itself. Only positional
    /// parameters reach the shell: no path is ever part of its program.
    private static let view = """
        set -e
        staging=$1 root=$2 options=$3
        shift 3
        while [ "$1" != -- ]; do
            mount -t overlay amorce-check -o "lowerdir=$root/$1,upperdir=$staging/upper/$1,workdir=$staging/scratch/$1$options" "$root/$1"
            shift
        done
        shift
        while [ "$1" != -- ]; do
            rm -f -- "$root$1"
            shift
        done
        shift
        while [ "$1" != -- ]; do
            mount -t tmpfs -o mode=0755 amorce-check "$1"
            shift
        done
        shift
        exec "$@"
        """

    private func run(_ command: [String], _ view: View, patience: Duration = .seconds(60)) throws -> ChildResult {
        let staging = view.staging
        var arguments = command
        if !view.tops.isEmpty || !view.privateFolders.isEmpty {
            // An ordinary user gets the view in a user namespace, where overlayfs keeps its marks in user attributes.
            let isolation = Host.isSuperuser ? ["--mount"] : ["--mount", "--map-root-user"]
            arguments =
                ["unshare"] + isolation
                + ["--propagation", "private", "sh", "-c", Self.view, "amorce-check", staging, layout.root]
                + [Host.isSuperuser ? "" : ",userxattr"] + view.tops + ["--"] + view.removed + ["--"]
                + view.privateFolders + ["--"] + command
        }
        var options = ChildProcess.Options()
        options.timeout = patience
        options.endsGroup = true
        // A rehearsal must not outlive an amorce that is killed: its programs look like the host's own.
        options.isTethered = true
        log.detail("checking with \(command.joined(separator: " "))")
        // Each check gets a fresh view: what one leaves in the upper layer must not reach the next.
        try Files.removeTree(staging + "/scratch")
        for top in view.tops { try Files.makeDirectories(staging + "/scratch/" + top, mode: 0o700) }
        return try ChildProcess.run(arguments, options: options, stop: stop)
    }
}
