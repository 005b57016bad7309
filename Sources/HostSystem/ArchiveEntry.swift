/// One entry as the archive states it, before anything is decided. Names are bytes: nothing promises UTF-8.
struct ArchiveEntry {
    enum Kind: Equatable {
        case regular, directory
        case symlink(target: [UInt8])
        case hardLink(target: [UInt8])
        /// A device, FIFO or socket, named for a message.
        case special(String)
    }

    var name: [UInt8]
    var kind: Kind
    /// Of the contents, as stated; holes included.
    var size: Int64
    /// Permission bits (07777).
    var mode: UInt32
    /// Since 1970; nil where the archive does not say.
    var modified: (seconds: Int64, nanoseconds: Int)?

    var shownName: String { Printable.text(name) }
}

/// An archive read entry by entry, in its own order.
protocol EntryReader: AnyObject {
    /// The next entry, or nil at the archive's true end.
    func next() throws -> ArchiveEntry?
    /// The contents of the entry that `next` returned last: pieces in order, with gaps where a sparse file has holes. Throws
    /// unless all of it is there and whole. May be left out.
    func contents(_ body: (_ offset: Int64, _ bytes: UnsafeRawBufferPointer) throws -> Void) throws
    /// Reads what is left behind the last entry, so that every byte has been looked at, and throws unless it may be there.
    func finish(stop: StopFlag) throws
    /// Oddities that do no harm, for the report.
    var warnings: [String] { get }
}
