import ArgumentParser
import BootSequence
import HostSystem

struct Restore: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Restore one backup or archive into a folder, and nothing else.",
        discussion: """
            The same pipeline and the same rules for what an archive may contain as in a boot. An address that ends with a \
            slash means the newest complete backup below it. The folder must be new or empty; where the restore fails, \
            nothing of it is left there.
            """)

    @OptionGroup var options: GlobalOptions
    @Option(help: ArgumentHelp("s3://, https:// or file:// address, or a path.", valueName: "url")) var from: String
    @Option(help: ArgumentHelp("The folder.", valueName: "dir")) var to: String
    @Option(help: "The bucket's region; else AWS_REGION, else the instance's.") var region: String?
    @Option(help: "Address of an S3-compatible store.") var endpoint: String?
    @Option(help: "Leading path components to drop, as tar's option.") var stripComponents = 0
    @Option(help: "Requests in flight.") var connections = 8
    @Option(help: "All download buffers together, such as 32MiB.", transform: OptionValue.amount)
    var memory = ByteCount(32 << 20)
    @Option(help: "Owner of everything restored, as user:group.") var owner: String?
    @Flag(help: "Print the result as JSON.") var json = false

    func validate() throws {
        guard (0...32).contains(stripComponents) else { throw ValidationError("--strip-components is from 0 to 32") }
        guard (1...64).contains(connections) else { throw ValidationError("--connections is from 1 to 64") }
        guard memory.value >= 4 << 20 else { throw ValidationError("--memory is at least 4MiB") }
    }

    func run() throws {
        var backup = BackupSettings(from: from.contains("://") ? from : "file://" + GlobalOptions.absolute(from))
        backup.region = region
        backup.endpoint = endpoint
        backup.stripComponents = stripComponents
        backup.connections = connections
        backup.memory = memory
        let console = options.console(keepsLog: false)
        let request = backup
        let target = GlobalOptions.absolute(to)
        let name = owner
        let restored = try options.inspect { (run, transport, stop, _) throws(BootFailure) in
            try StandaloneRestore(options: run, transport: transport, stop: stop, observer: console.show)
                .restore(request, into: target, owner: name)
        }
        if json { Output.json(restored) }
    }
}
