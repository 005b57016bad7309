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
    @OptionGroup var store: StoreArguments
    @Option(help: "Leading path components to drop, as tar's option.") var stripComponents = 0
    @Option(help: "Owner of everything restored, as user:group.") var owner: String?
    @Flag(help: "Print the result as JSON.") var json = false

    func validate() throws {
        guard (0...32).contains(stripComponents) else { throw ValidationError("--strip-components is from 0 to 32") }
    }

    func run() throws {
        var backup = store.settings(from)
        backup.stripComponents = stripComponents
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
