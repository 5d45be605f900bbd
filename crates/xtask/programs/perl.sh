cat >workload.pl <<'PL'
use strict;
use warnings;

my $seed = 12345;
sub rnd { $seed = ($seed * 1103515245 + 12345) % 2147483648; return $seed % $_[0]; }
sub digest { my $sum = 0; $sum = ($sum * 31 + ord) % 4294967291 for split //, $_[0]; return $sum; }

# Hashes of arrays of hashes.
my %index;
for my $i (1 .. 60000) {
    my $key = "k" . rnd(5000);
    push @{ $index{$key} }, { id => $i, name => "n" x rnd(40) };
}
my $rows = join ",", map { "$_:" . scalar @{ $index{$_} } } sort keys %index;
print "hash ", scalar(keys %index), " ", digest($rows), "\n";
delete $index{$_} for grep { rnd(2) } sort keys %index;
print "left ", scalar(keys %index), "\n";

# Strings: growth, substitution, split, join, sort, pack.
my $text = "";
$text .= chr(97 + rnd(26)) . (rnd(6) ? "" : " ") for 1 .. 400000;
my @words = split / /, $text;
(my $swapped = $text) =~ s/(\w)(\w*)/$2$1/g;
my $count = () = $text =~ /\b[aeiou]\w*[^aeiou ]\b/g;
print "text ", scalar(@words), " $count ", digest($swapped), "\n";
my @sorted = sort { length($a) <=> length($b) or $a cmp $b } @words;
print "sort ", digest(join "|", @sorted), "\n";
my $packed = pack "(N/a*)*", @words;
my @back = unpack "(N/a*)*", $packed;
print "pack ", length($packed), " ", ("@back" eq "@words" ? "same" : "different"), "\n";

# Closures and deep recursion.
my @subs = map { my $n = $_; sub { $n * $_[0] } } 1 .. 20000;
my $sum = 0;
$sum += $_->(3) for @subs;
print "closures $sum\n";
sub depth { my ($n, @rest) = @_; return $n ? 1 + depth($n - 1, @rest, $n) : 0; }
{ no warnings 'recursion'; print "depth ", depth(900), "\n"; }

# Children that allocate, with results by pipe.
my @pipes;
for my $child (1 .. 8) {
    pipe(my $read, my $write) or die;
    my $pid = fork() // die;
    if (!$pid) {
        close $read;
        my %own = map { $_ => "v" x ($_ % 90) } 1 .. 10000;
        my $total = 0;
        $total += length for values %own;
        print $write "$child $total\n";
        close $write;
        exit 0;
    }
    close $write;
    push @pipes, $read;
}
for my $pipe (@pipes) { print "child ", scalar <$pipe>; }
1 while wait() != -1;
PL
perl workload.pl
