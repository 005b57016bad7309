import ArgumentParser
import Backups
import BootSequence
import HostSystem

/// How a store is reached, for the commands that name one themselves.
struct StoreArguments: ParsableArguments {
    @Option(help: "The bucket's region; else AWS_REGION, else the instance's.") var region: String?
    @Option(help: "Address of an S3-compatible store.") var endpoint: String?
    @Option(help: "Requests in flight; 8, or 3 parts of a backup that is made.") var connections: Int?
    @Option(help: "All download buffers together, such as 32MiB.", transform: OptionValue.amount)
    var memory = ByteCount(32 << 20)
    @Option(help: "Threads that pack or unpack; as many as there are processors if not given.") var threads: Int?

    func validate() throws {
        guard connections.map({ (1...64).contains($0) }) ?? true else {
            throw ValidationError("--connections is from 1 to 64")
        }
        guard memory.value >= 4 << 20 else { throw ValidationError("--memory is at least 4MiB") }
        guard threads.map({ (1...256).contains($0) }) ?? true else {
            throw ValidationError("--threads is from 1 to 256")
        }
    }

    /// - Parameter address: a URL, or a path of this host.
    func settings(_ address: String) -> BackupSettings {
        var backup = BackupSettings(from: OptionValue.address(address))
        backup.region = region
        backup.endpoint = endpoint
        if let connections { backup.connections = connections }
        backup.memory = memory
        if let threads { backup.threads = threads }
        return backup
    }
}

struct BackupCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backup",
        abstract: "Make a backup of a folder or of the live release.",
        discussion: """
            The backup is one .tar.zst, which any tar and zstd can unpack, and a manifest beside it, written last: without it \
            there is no backup. What has not changed since the newest backup below the same prefix is neither read nor sent \
            again, but copied inside the store, so that every backup is complete by itself. Patterns of what to leave out, \
            as in .gitignore, also come from a file .amorceignore in the folder.
            """)

    @OptionGroup var options: GlobalOptions
    @OptionGroup var store: StoreArguments
    @Option(help: ArgumentHelp("A folder, or current for the release that is live.", valueName: "dir"))
    var from = "current"
    @Option(help: ArgumentHelp("s3:// or file:// address of a prefix, or a folder.", valueName: "url")) var to: String
    @Option(help: "The application; else what .amorce-site in the folder says.") var app: String?
    @Option(help: "The environment that the data comes from.") var environment = "production"
    @Option(help: ArgumentHelp("Leave out what matches; may be repeated.", valueName: "pattern")) var exclude:
        [String] = []
    @Flag(help: "Take nothing over from an earlier backup.") var full = false
    @Flag(help: "Print the result as JSON.") var json = false

    func validate() throws {
        for (name, value) in [("--app", app ?? "a"), ("--environment", environment)] where !BackupWork.isName(value) {
            throw ValidationError("\(name) is small letters, digits and hyphens, 63 at the most")
        }
    }

    func run() throws {
        var request = BackupWork.Request(
            source: from == "current" ? from : GlobalOptions.absolute(from), app: app, environment: environment)
        request.patterns = exclude
        request.isFull = full
        var target = store.settings(to.hasSuffix("/") ? to : to + "/")
        // Each holds a part in memory.
        if store.connections == nil { target.connections = 3 }
        let made = try options.inspect { [request, target] (run, transport, stop, observer) throws(BootFailure) in
            try BackupWork("backup", options: run, transport: transport, stop: stop, observer: observer)
                .create(request, to: target)
        }
        if json { Output.json(made) }
    }
}

struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Read a whole backup and check it, without restoring it.",
        discussion: """
            An address that ends with a slash means the newest complete backup below it. Of a backup that amorce made every \
            hash is compared, and that the tar inside is the one that its manifest describes; of any other archive, \
            whatever checks its format has, and the .sha256 beside it.
            """)

    @OptionGroup var options: GlobalOptions
    @OptionGroup var store: StoreArguments
    @Argument(help: ArgumentHelp("s3://, https:// or file:// address, or a path.", valueName: "url")) var address:
        String
    @Flag(help: "Print the result as JSON.") var json = false

    func run() throws {
        let source = store.settings(address)
        let verified = try options.inspect { (run, transport, stop, observer) throws(BootFailure) in
            try BackupWork("verify", options: run, transport: transport, stop: stop, observer: observer).verify(source)
        }
        if json { Output.json(verified) }
    }
}

struct BackupsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "backups",
        abstract: "List the backups below a prefix, and remove those that a policy does not keep.",
        discussion: """
            A policy such as keep-daily=7,keep-weekly=4 keeps the newest backup of each of the last seven days and four weeks \
            that have one (UTC; keep-last, keep-hourly, keep-monthly and keep-yearly likewise), for each application and \
            environment on its own, and always the newest one. Only what amorce made is ever removed. What was left \
            unfinished is removed after two days. A backup whose manifest is damaged or of a later version is listed as damaged, \
            with the reason, and one that is dated more than a day ahead as that; both stay, and count for no policy.
            """)

    @OptionGroup var options: GlobalOptions
    @OptionGroup var store: StoreArguments
    @Argument(help: ArgumentHelp("s3:// or file:// address of a prefix, or a folder.", valueName: "url")) var address:
        String
    @Option(help: ArgumentHelp("Remove what this policy does not keep.", valueName: "policy")) var prune: String?
    @Flag(help: "With --prune: say what would be removed, and remove nothing.") var dryRun = false
    @Flag(help: "Print the list as JSON.") var json = false

    func validate() throws {
        if dryRun && prune == nil { throw ValidationError("--dry-run goes with --prune") }
    }

    func run() throws {
        let place = store.settings(address.hasSuffix("/") ? address : address + "/")
        if let policy = prune { return try remove(place, policy) }
        let items = try options.inspect { (run, transport, stop, observer) throws(BootFailure) in
            try BackupWork("backups", options: run, transport: transport, stop: stop, observer: observer).list(place)
        }
        if json { return Output.json(items) }
        if items.isEmpty { return Output.line("no backup below \(Printable.text(address))") }
        table(items.map { row($0, mark: nil) })
    }

    private func remove(_ place: BackupSettings, _ policy: String) throws {
        let isDryRun = dryRun
        let pruned = try options.inspect { (run, transport, stop, observer) throws(BootFailure) in
            try BackupWork("backups", options: run, transport: transport, stop: stop, observer: observer)
                .prune(place, policy: policy, isDryRun: isDryRun)
        }
        if json {
            return Output.json(pruned)
        }
        let removed = Set(pruned.removed.map(\.key))
        let all = (pruned.kept + pruned.removed).sorted { ($0.time ?? 0, $0.key) > ($1.time ?? 0, $1.key) }
        table(all.map { row($0, mark: removed.contains($0.key) ? (isDryRun ? "would go" : "removed") : "kept") })
    }

    private func row(_ item: BackupWork.Listed, mark: String?) -> [String] {
        let age =
            item.isAhead
            ? "from the future" : item.time.map { Self.age(max(0, Host.now - $0)) } ?? "of unknown age"
        let origin = [item.app, item.environment].compactMap { $0 }.joined(separator: " of ")
        return (mark.map { [$0] } ?? []) + [
            Printable.text(Files.name(of: item.key)), age, item.size.map { "\(ByteCount($0))" } ?? "",
            item.state.name, Printable.text(origin),
            [item.files.map { "\($0) files" }, item.note.map { Printable.text($0) }].compactMap { $0 }
                .joined(separator: "; "),
        ]
    }

    private static func age(_ seconds: Int64) -> String {
        (seconds < 60 ? "\(seconds) s" : Duration.seconds(seconds).spoken) + " old"
    }

    private func table(_ rows: [[String]]) {
        let widths = rows.reduce(into: [Int]()) { widths, row in
            for (column, text) in row.enumerated() {
                if column == widths.count { widths.append(0) }
                widths[column] = max(widths[column], text.count)
            }
        }
        for row in rows {
            let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
            var line = cells.joined(separator: "  ")
            while line.last == " " { line.removeLast() }
            Output.line(line)
        }
    }
}
